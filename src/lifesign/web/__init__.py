"""The web interface: people, how they sign in, what they may do in which project, and the pages they see.

Owns the tables `users`, `memberships`, `user_sessions`, `password_links`, `sign_in_failures`, `identities`,
`spent_states` and `status_pages`. Pages call the services of the other slices, as the APIs do. Spec "Web interface".

A page of another slice: a module `..._routes.py` with a `router`, made with `pages.page`, whose templates extend
`base.html.j2` and use the macros of `macros.html.j2`, where each is described (states, tiles, strips, charts, tables,
fields). Its entry in the header goes to `pages.NAVIGATION`. Forms are read with `access.form_for`, which refuses those
who may not; a part of a page that is to change by itself has `data-live="NAME"`, and the page is given `seq`.
"""
