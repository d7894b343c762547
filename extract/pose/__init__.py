"""HRNet joints: person boxes, crops, heatmaps, decoding."""
