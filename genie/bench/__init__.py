"""How fast each part is, beside what it is to be compared with."""
