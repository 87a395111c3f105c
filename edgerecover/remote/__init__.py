"""Running a bundle on the device, from the desk."""
