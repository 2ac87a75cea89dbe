"""The names that `import delrec_jax` offers; each is loaded when it is first used."""
