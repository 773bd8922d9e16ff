"""Decoupled DiLoCo with real processes: learners and syncer as actors of Ray (extra `ray`)."""
