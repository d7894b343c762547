"""Own data: folders, lists and tables of videos."""
