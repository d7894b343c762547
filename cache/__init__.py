"""Floor 1: everything two stages share on disk. numpy and h5py only, never torch."""
