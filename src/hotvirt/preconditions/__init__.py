"""What must hold for each live change. Pure: (objects, guest facts) -> list of findings."""
