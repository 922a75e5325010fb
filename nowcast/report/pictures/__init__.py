"""Pictures of many frames, panels and animations, and the coast, borders and arrows on maps."""
