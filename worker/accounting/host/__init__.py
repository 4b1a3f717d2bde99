"""What a node has: its inventory under its policy, compiled once into cells, CPUs, pages, devices and capacity."""
