"""What differs from one architecture to the next, as frozen values. What asks QEMU or libvirt is
elsewhere.
"""
