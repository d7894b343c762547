"""One file per source of videos: official files, or a folder, to a manifest."""
