"""A project on the server: found by its title, made, brought up to date. Its settings are fixed when it is made."""

from __future__ import annotations

from labeling.label_studio.interface import ROWS, Page, configuration
from labeling.label_studio.studio import Project, Studio
from labeling.label_studio.wording import guide
from prm_kit.errors import InputError, UsageError, nearest


def open_project(studio: Studio, title: str, page: Page, overlap: int | None = None) -> Project:
    """Find the project of that title, or make it; bring its page up to date.

    Args:
        studio: The server.
        title: Of at least three characters.
        page: Its settings; those of a project that is there must be the same.
        overlap: How many annotators are asked for each solution; None: as it is, 1 in a new project.

    Raises:
        UsageError: The project has other settings, is not one of prm-kit's, or several have that title.
    """
    if len(title) < 3:
        raise UsageError(f"project {title!r}: Label Studio wants at least three characters")
    text = guide(page.language, page.policy, ROWS[page.keyboard])
    found = [project for project in studio.projects() if project.title == title]
    if not found:
        return studio.create_project(title, page.description(), text, configuration(page), overlap or 1)
    project = _only(found, title)
    there = page_of(project)
    for name in ("policy", "language", "keyboard"):
        if getattr(there, name) != getattr(page, name):
            raise UsageError(
                f"project {title!r} has {name} {getattr(there, name)!r}, which is fixed for a project; "
                f"for {getattr(page, name)!r} take another --project"
            )
    if there.version != page.version or project.label_config != configuration(page):
        studio.update_project(project.id, description=page.description(), guide=text, label_config=configuration(page))
    if overlap is not None and overlap != project.overlap:
        studio.update_project(project.id, overlap=overlap)
    return project


def find_project(studio: Studio, title: str) -> Project:
    """Find the project of that title.

    Raises:
        UsageError: There is none, or there are several.
    """
    projects = studio.projects()
    found = [project for project in projects if project.title == title]
    if not found:
        titles = sorted({project.title for project in projects})
        near = nearest(title, titles)
        hint = f" Did you mean {near!r}?" if near else ""
        raise UsageError(f"no project {title!r} on the server.{hint} There: {', '.join(titles) or 'none'}.")
    return _only(found, title)


def _only(found: list[Project], title: str) -> Project:
    """The one project.

    Raises:
        UsageError: There are several.
    """
    if len(found) > 1:
        numbers = ", ".join(str(project.id) for project in found)
        raise UsageError(f"several projects are called {title!r} (numbers {numbers}); rename all but one")
    return found[0]


def page_of(project: Project) -> Page:
    """A project's settings.

    Raises:
        UsageError: It is not one of prm-kit's.
    """
    try:
        return Page.of_description(project.description)
    except InputError as error:
        raise UsageError(f"project {project.title!r} (number {project.id}): {error}") from None
