"""Offline checks that need more than one object, or the catalogue; one file per subject, ``offline.check`` runs all."""
