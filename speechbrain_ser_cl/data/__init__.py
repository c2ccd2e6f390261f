"""Turns utterances into batches: splits, data set, samplers, loaders, feature cache."""
