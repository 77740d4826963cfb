"""Tags and events to profiles: the fold, the view, and how well they tell the truth."""
