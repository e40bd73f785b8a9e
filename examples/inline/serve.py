"""Start python-ismrmrd-server with PyTorch imported, so that its processes, one for each client, need not import it.

In the server's folder: python serve.py OPTIONS_OF_MAIN
"""

import runpy

from hggdp_plugin.threads import configure_threads

configure_threads()  # before PyTorch reads the settings

import hggdp_plugin.apps.fire
import hggdp_plugin.volume.reconstruct  # noqa: F401

runpy.run_path("main.py", run_name="__main__")
