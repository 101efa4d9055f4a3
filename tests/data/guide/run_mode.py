# ruff: noqa
# fmt: off
from atomstream.streaming import RHEEDStreamer
streamer = RHEEDStreamer(api_key="YOUR_API_KEY")
import numpy as np
import time
def frame_generator(all_frames, chunk_size, fps):
    """Yield chunks at the correct pace."""
    for start in range(0, len(all_frames), chunk_size):
        yield all_frames[start:start + chunk_size]
        time.sleep(chunk_size / fps)
# Frames already in memory
frames = np.load("recorded_frames.npy")
data_id = streamer.initialize(
    fps=120.0,
    rotations_per_min=0.0,
    chunk_size=240,
    stream_name="Playback",
)
streamer.run(data_id, frame_generator(frames, chunk_size=240, fps=120.0))
streamer.finalize(data_id)
