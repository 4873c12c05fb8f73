"""The tests of tfstream."""
