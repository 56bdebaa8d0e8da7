"""The backend's pages for a browser: server-rendered, with one stylesheet and one script.

Nothing is loaded from elsewhere. Every page can be read without JavaScript. What a trace says is escaped by the
templates.
"""
