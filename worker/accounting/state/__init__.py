"""What is held: instances and their placements, what is taken of a node, and the view a decision has of both."""
