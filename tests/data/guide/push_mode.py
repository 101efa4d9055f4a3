# ruff: noqa
# fmt: off
from atomstream.streaming import RHEEDStreamer
streamer = RHEEDStreamer(api_key="YOUR_API_KEY")
data_id = streamer.initialize(
    fps=120.0,
    rotations_per_min=15.0,  # Use 0.0 for stationary RHEED
    chunk_size=240,  # Frames per chunk (2 seconds at 120fps)
    stream_name="Growth 001",
    physical_sample="GaN-2025-001",
)
import numpy as np
import time
fps = 120.0
chunk_size = 240
seconds_per_chunk = chunk_size / fps
for chunk_idx in range(num_chunks):
    # Get frames from your camera (shape: [chunk_size, height, width])
    frames = camera.capture(chunk_size)  # Your camera SDK
    streamer.push(data_id, chunk_idx, frames)
    time.sleep(seconds_per_chunk)
streamer.finalize(data_id)
