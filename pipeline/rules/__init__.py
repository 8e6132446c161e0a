"""What the settings say of paths: where bytes lie, move and go, and how pictures are rendered."""
