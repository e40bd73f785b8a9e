from .images import read_mrd_images as read_mrd_images
from .images import write_mrd_images as write_mrd_images
from .reader import read_raw as read_raw
from .reader import read_stream as read_stream
