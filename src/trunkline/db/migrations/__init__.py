"""Alembic migrations; `trunkline.db.database.migrate` runs them."""
