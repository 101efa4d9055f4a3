"""Exports of one stream: HDF5/NeXus, netCDF, CSV, TIFF, MP4, GIF and a PDF report. All take constant memory."""
