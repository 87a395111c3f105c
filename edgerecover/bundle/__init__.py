"""What is handed to the device: a folder of files with a manifest, written whole or not at all."""
