"""Many scans on many workers, with Dask: tasks, manifest, progress and a page that shows them all."""
