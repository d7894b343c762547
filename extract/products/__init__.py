"""From prepared clips to rows of the streams: the frozen models run here, in the parent."""
