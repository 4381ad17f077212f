"""Numbered system checks, one short function per mistake."""
