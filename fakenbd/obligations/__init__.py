"""An observer of the two byte streams of a connection: who broke which rule."""
