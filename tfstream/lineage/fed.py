"""A stream of a run, opened again: its data set, its rows and their order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tfstream import remote, storage
from tfstream.errors import UsageError
from tfstream.format.manifest import MANIFEST, Catalog, open_catalog
from tfstream.format.places import Places
from tfstream.format.subset import Subset
from tfstream.lineage import description
from tfstream.lineage.description import Feed
from tfstream.share import WHOLE, Share
from tfstream.storage import Place


@dataclass(frozen=True)
class Fed:
    """What a run was fed from."""

    feed: Feed
    """What the run says of it."""
    folder: Place
    """The run's folder."""
    shards_folder: Place | None
    """The data set's folder, if it was given."""

    @cached_property
    def catalog(self) -> Catalog:
        """The data set.

        Raises:
            UsageError: if it is not where it was, with the places looked at.
            CorruptionError: if its index is damaged.
        """
        if self.shards_folder is not None:
            places = [self.shards_folder]
        else:
            places = [storage.place(self.feed.folder)]
            if not remote.is_url(self.feed.relative_folder):
                places.append(self.folder / self.feed.relative_folder)
        for place in places:
            if storage.is_file(place / MANIFEST):
                return open_catalog(place, self.feed.dataset)
        raise UsageError(
            f"the data set of the run {self.folder} is not in {' nor in '.join(map(str, places))}; "
            "give its folder: open_run(folder, shards=...)"
        )

    @cached_property
    def subset(self) -> Subset:
        """The rows of the stream.

        Raises:
            DataError: if the data set is another one.
        """
        return description.subset_of(self.feed, Subset.whole(self.catalog))

    @property
    def places(self) -> Places:
        """Where those rows come in each epoch."""
        return self.places_of(WHOLE)

    def places_of(self, share: Share) -> Places:
        """Where a worker's part of those rows comes in each epoch."""
        if share not in self._places:
            self._places[share] = Places(self.subset, self.feed.spec, share)
        return self._places[share]

    @cached_property
    def _places(self) -> dict[Share, Places]:
        return {}
