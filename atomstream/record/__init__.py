"""The recorder on the camera's PC: takes frames, keeps the last minutes, and streams what is recorded.

Who owns what:

* :class:`~atomstream.record.capture.Capture` owns the camera, its thread and the dashcam.
* :class:`~atomstream.record.dashcam.Dashcam` owns the last minutes of frames, in memory and on disk.
* :class:`~atomstream.record.recording.Recording` owns one stream: which frames belong to it, and how far it is saved.
* :class:`~atomstream.record.recorder.Recorder` owns the state (idle, recording, paused, finishing) and all of these.
* :mod:`atomstream.record.web` shows the state and passes on the user's actions. Its only own state is browser sessions.

A recording reads its frames from the dashcam, at its own pace. So the frames from before the button was pressed and
those after it come the same way, in order, and a slow disk or server never delays the camera.
"""
