"""CPU maps in libvirt's cpu_map.xml format: their files, their entries, the map. What is decided
from them is in `rules`.
"""
