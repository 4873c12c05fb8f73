"""Laws, over whatever hypothesis comes up with."""
