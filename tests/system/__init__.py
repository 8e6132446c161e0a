"""What needs programs of the distribution: `make system-test` installs them where it may."""
