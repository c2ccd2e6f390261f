"""From utterances to batches: audio, manifests, splits, samplers, collation."""
