"""Many slices: from a measurement to its images, in batches."""
