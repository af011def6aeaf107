"""Dead letters for consumers without our library, made from the server's advisories."""
