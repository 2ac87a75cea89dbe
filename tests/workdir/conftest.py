from gcs_fake import bucket

__all__ = ["bucket"]
