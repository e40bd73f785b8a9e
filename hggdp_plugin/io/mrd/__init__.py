"""ISMRMRD (MRD) raw data and images."""
