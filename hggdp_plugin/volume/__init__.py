"""Reconstruction of whole measurements: many slices and frames, in batches."""
