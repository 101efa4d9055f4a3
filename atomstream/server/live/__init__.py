"""Live results: what happens to a stored chunk until its results reach the readers.

    ingest -> shared_frames (decoded frames) -> analyzer_client -> worker (a process)
    worker -> live_analysis -> result_store (columns, profiles) and result_log (numbered records)
    result_log -> feed (newest messages in memory; each reader has only a position in the log)

The user's annotations (events, regions, calibration, labels) are in ``analysis/inputs.log``. Both logs are
authoritative; everything in memory is rebuilt from them.
"""
