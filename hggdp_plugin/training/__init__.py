"""Training of score networks: images, loss, Lightning module, and the run that writes a prior."""
