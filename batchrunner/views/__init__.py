"""What a checkpoint shows to a person, without running anything."""
