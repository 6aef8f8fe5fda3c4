import VMMBase
