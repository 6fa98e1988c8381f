"""Pictures of results: the only part that draws, and the only one that imports matplotlib."""
