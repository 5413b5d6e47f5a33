// Policies: the editor.
