# ruff: noqa
# fmt: off
from atomstream.streaming import RHEEDStreamer
streamer = RHEEDStreamer(api_key="YOUR_API_KEY")
data_id = streamer.initialize(
    fps=120.0,
    rotations_per_min=15.0,
    chunk_size=240,
    physical_sample="Wafer-A1",  # Matched case-insensitively; created if not found
)
data_id = streamer.initialize(
    fps=120.0,
    rotations_per_min=15.0,
    chunk_size=240,
    physical_sample="a1b2c3d4-e5f6-7890-abcd-ef1234567890",  # Must exist
)
data_id = streamer.initialize(
    fps=120.0,
    rotations_per_min=15.0,
    chunk_size=240,
    physical_sample="Wafer-A1",
    project_id="your-project-uuid",
)
