"""What people look at: pictures, self-contained HTML pages, drawings in the terminal."""
