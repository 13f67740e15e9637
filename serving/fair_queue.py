"""Images that wait for a slot: one of each request in turn."""

from __future__ import annotations

from collections import OrderedDict, deque


class FairQueue:
    """Requests in a ring. Between two images of one request every other one that waits has a turn.

    So a request for ten images and ten requests for one that come after it have their first images side by side, and no
    request waits forever: between two of its turns stands one image of each other request, whatever comes after.
    """

    def __init__(self) -> None:
        self._images: OrderedDict[str, deque[int]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._images.values()))

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._images

    def put(self, request_id: str, images: list[int]) -> None:
        """Append the images of a request, behind those of its own that wait already."""
        self._images.setdefault(request_id, deque()).extend(images)

    def take(self) -> tuple[str, int]:
        """The next request's next image.

        Raises:
            KeyError: nothing waits.
        """
        request_id, images = self._images.popitem(last=False)
        image = images.popleft()
        if images:
            self._images[request_id] = images
        return request_id, image

    def drop(self, request_id: str) -> list[int]:
        """Take out all of a request, and say which images waited."""
        return list(self._images.pop(request_id, ()))
