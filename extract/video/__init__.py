"""From a video file to frames with true times: classify, choose instants, decode."""
